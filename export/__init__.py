"""From a checkpoint to a bundle. Needs the export extra."""
