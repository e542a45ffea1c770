"""What people and machines read: each module turns one decision into one format."""
