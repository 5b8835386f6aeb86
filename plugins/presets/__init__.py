"""Named settings (TOML), and the rules that adapt them to a text and a budget."""
