"""Why a page fault or an IPC of a recorded run took as long as it did."""
