"""An index as files that other tools open."""
