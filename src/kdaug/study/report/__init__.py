"""Reports: finished runs compared in tables, figures and one page."""

from kdaug.study.report.curves import curves_svg
from kdaug.study.report.write import write_report

__all__ = ["curves_svg", "write_report"]
