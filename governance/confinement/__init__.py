"""What a process may reach, as the kernel enforces it, and what it tried."""
