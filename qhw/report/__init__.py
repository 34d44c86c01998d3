"""What people look at: tables, progress, plots, and the pages of builds and searches."""

FILE_NAME = "report.html"
"""The page that a build and a search leave in their folders."""
