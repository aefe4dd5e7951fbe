"""Sequencer, counters and errors."""
