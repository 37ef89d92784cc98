"""Synthetic chest films with masks and labels, written as DICOM: the default of the quickstart, the fixture of tests."""
