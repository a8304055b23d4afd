"""Limit what a process may reach, by the kernel, and report what it tried."""
