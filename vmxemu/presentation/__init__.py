"""What people see: tables, timelines, progress."""
