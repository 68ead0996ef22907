"""The commands of `taskscope`, one module for each group."""
