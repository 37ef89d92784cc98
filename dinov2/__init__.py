"""Self-supervised pretraining of image encoders for chest radiographs."""

__version__ = "0.1.0"
