"""Other people's tools on our models: run on files, guarded, with scopes and tags carried across."""
