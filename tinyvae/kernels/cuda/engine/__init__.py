"""The tiles, copies and instructions behind the ops of this column, and how they are compiled."""
