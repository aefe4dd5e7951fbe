"""Thresher: compress a trained network and generate the hardware that runs it compressed."""
