"""Film -> picture: read, polarity, resample, grey levels, a folder of PNGs with its manifest. Home of pydicom and SimpleITK."""
