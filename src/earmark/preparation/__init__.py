"""Videos to prepared videos."""
