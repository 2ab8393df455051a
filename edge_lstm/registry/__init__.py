"""The registry in plain files: what every artefact carries about how it was made, read back and compared."""
