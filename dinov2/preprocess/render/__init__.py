"""Film -> picture: size, polarity, grey levels, PNG. Home of SimpleITK."""
