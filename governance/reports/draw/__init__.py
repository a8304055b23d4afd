"""Draw the blocks of a report as PDF, HTML page and Markdown."""
