"""The papers' figures measured again, drawn and explained; and the demo, which is the main one in small."""
