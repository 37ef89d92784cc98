"""Film -> picture: from a folder of radiographs to PNGs with a manifest. Home of pydicom and SimpleITK."""
