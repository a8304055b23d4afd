"""What synthetic images are worth to tasks that are judged on real patients."""
