{{- /* Generated from operator/src/trimtab_operator/api by `make generate`; do not edit. */ -}}
{{- define "trimtab.policies" -}}
[
  {
    "policy": "reviews",
    "spec": {
      "failurePolicy": "Fail",
      "matchConstraints": {
        "matchPolicy": "Equivalent",
        "resourceRules": [
          {
            "apiGroups": [
              "trimtab.dev"
            ],
            "apiVersions": [
              "*"
            ],
            "resources": [
              "reviews"
            ],
            "operations": [
              "CREATE",
              "UPDATE",
              "DELETE"
            ],
            "scope": "*"
          }
        ]
      },
      "validations": [
        {
          "expression": "request.operation != 'CREATE' || object.spec.author == request.userInfo.username",
          "message": "spec.author must be the user who creates the Review",
          "messageExpression": "'spec.author must be the user who creates the Review: ' + request.userInfo.username"
        },
        {
          "expression": "request.operation != 'CREATE' || !has(object.spec.authorGroups) || object.spec.authorGroups.all(g, has(request.userInfo.groups) && g in request.userInfo.groups)",
          "message": "spec.authorGroups must be groups of the user who creates the Review"
        },
        {
          "expression": "request.operation != 'UPDATE' || object.spec == oldObject.spec",
          "message": "a Review is a record: create another one"
        },
        {
          "expression": "request.operation == 'DELETE' || !has(object.metadata.ownerReferences) || object.metadata.ownerReferences.size() == 0",
          "message": "a Review has no owner: it would be deleted with it"
        },
        {
          "expression": "request.operation != 'DELETE' || oldObject.spec.author == request.userInfo.username || has(namespaceObject.metadata.deletionTimestamp) || authorizer.group('trimtab.dev').resource('reviews').namespace(request.namespace).check('administer').allowed()",
          "message": "only its author may delete a Review, or who may administer reviews.trimtab.dev"
        }
      ]
    }
  },
  {
    "policy": "authors",
    "spec": {
      "failurePolicy": "Fail",
      "matchConstraints": {
        "matchPolicy": "Equivalent",
        "resourceRules": [
          {
            "apiGroups": [
              "trimtab.dev"
            ],
            "apiVersions": [
              "*"
            ],
            "resources": [
              "finetunejobs"
            ],
            "operations": [
              "CREATE",
              "UPDATE"
            ],
            "scope": "*"
          }
        ]
      },
      "variables": [
        {
          "name": "author",
          "expression": "object != null && has(object.metadata.annotations) && 'trimtab.dev/author' in object.metadata.annotations ? object.metadata.annotations['trimtab.dev/author'] : ''"
        },
        {
          "name": "before",
          "expression": "oldObject != null && has(oldObject.metadata.annotations) && 'trimtab.dev/author' in oldObject.metadata.annotations ? oldObject.metadata.annotations['trimtab.dev/author'] : ''"
        }
      ],
      "validations": [
        {
          "expression": "request.operation != 'CREATE' || variables.author in ['', request.userInfo.username]",
          "message": "the annotation trimtab.dev/author must be the user who creates the FineTuneJob",
          "messageExpression": "'the annotation trimtab.dev/author must be the user who creates the FineTuneJob: ' + request.userInfo.username"
        },
        {
          "expression": "request.operation != 'UPDATE' || variables.author == variables.before",
          "message": "the annotation trimtab.dev/author stays as it was when the FineTuneJob was created"
        }
      ]
    }
  }
]
{{- end }}
