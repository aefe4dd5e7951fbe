"""The verbs of the thresher command, a file a verb."""
