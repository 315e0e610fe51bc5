"""Commands of the command line beyond the main job, one file each; ``cli.py`` puts them together."""
