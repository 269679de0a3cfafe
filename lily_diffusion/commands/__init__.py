"""What each command of lily-diffusion does: one file a command, with add_arguments, run and EXAMPLES."""
