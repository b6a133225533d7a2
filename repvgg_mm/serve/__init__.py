"""A complete exported file as a web service: neither torch nor OpenMMLab is needed."""
