"""The command line: one module per command, which parses its arguments, calls the library and prints.

Each module has run(arguments), which returns the exit code. Some also have SETTING_FLAGS, a dict from setting to flag
for settings whose flag has another name in that command; error messages use it.
"""
