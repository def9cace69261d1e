"""What people and programs see of plans, runs and bills: rich for terminals, JSON, one HTML page. Reads nothing."""
