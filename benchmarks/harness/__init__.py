"""The parts that all benchmark scripts share: rounds, reports, the machine, Markdown and flags."""
