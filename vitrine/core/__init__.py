"""What every room needs: names, settings, files, random numbers, scopes that leave a network alone."""
