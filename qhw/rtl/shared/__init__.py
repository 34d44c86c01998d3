"""What several units have in common: parts of closed forms, references and ports."""
