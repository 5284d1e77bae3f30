"""The command line: one module per command, which parses its arguments, calls the library and prints."""
