"""What several wings show people alike: tables, progress, versions."""
