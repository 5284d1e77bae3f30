"""Reports: finished runs compared in tables, figures and one page."""

from kdaug.study.report.write import write_report

__all__ = ["write_report"]
