"""Blocks drawn as PDF, HTML page and Markdown."""
