"""Where tasks outlive the process."""
