"""A user's workspace: its paths, parameters, Git repository and DVC pipeline. Nothing else imports or calls DVC."""
