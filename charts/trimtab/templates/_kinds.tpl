{{- /* Generated from operator/src/trimtab_operator/api by `make generate`; do not edit. */ -}}
{{- define "trimtab.kinds" -}}
[
  {
    "singular": "finetunejob",
    "plural": "finetunejobs",
    "verbs": [
      "get",
      "list",
      "watch",
      "create",
      "patch",
      "delete"
    ],
    "writers": "Who may create them may create pods with any Secret and any service account of the namespace."
  },
  {
    "singular": "finetunesweep",
    "plural": "finetunesweeps",
    "verbs": [
      "get",
      "list",
      "watch",
      "delete"
    ],
    "writers": "Who may create them may create pods with any Secret and any service account of the namespace."
  },
  {
    "singular": "evaluation",
    "plural": "evaluations",
    "verbs": [
      "get",
      "list",
      "watch",
      "create",
      "patch",
      "delete"
    ],
    "writers": "Who may create them may create pods with any Secret and any service account of the namespace."
  },
  {
    "singular": "adapterrollout",
    "plural": "adapterrollouts",
    "verbs": [
      "get",
      "list",
      "watch"
    ],
    "writers": "Who may write them decides which adapters the serving pods of the namespace answer with."
  },
  {
    "singular": "review",
    "plural": "reviews",
    "verbs": [
      "get",
      "list",
      "watch"
    ],
    "writers": "Who may write them approves adapters, as themselves and for no other: an admission policy sees to that."
  },
  {
    "singular": "adapterexport",
    "plural": "adapterexports",
    "verbs": [
      "get",
      "list",
      "watch",
      "delete"
    ],
    "writers": "Who may create them may create pods with any Secret and any service account of the namespace."
  }
]
{{- end }}
