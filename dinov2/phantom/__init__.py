"""Synthetic chest films with masks and labels, written as DICOM: default of the quickstart, fixture of tests."""
