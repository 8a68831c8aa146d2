"""The tiles, copies and instructions behind the ops of this column, and how they are compiled.
It knows blocks, warps and shared memory, and no op."""
