"""DICOM, PNG, JPEG or TIFF bytes -> film in modality units. Home of pydicom."""
