"""The verbs: files in, files out.  One public function a file, of the same name as on the command line."""
