"""The dashboards as code; the alerts are charts/trimtab/alerts.yaml."""
