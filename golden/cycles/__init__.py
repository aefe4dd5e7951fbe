"""A cycle model of the machine: how long each pass takes, without simulating its hardware."""
