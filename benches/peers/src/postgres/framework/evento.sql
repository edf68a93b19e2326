CREATE TABLE event (
    id varchar(26) PRIMARY KEY,
    name varchar(50) NOT NULL,
    aggregator_type varchar(50) NOT NULL,
    aggregator_id varchar(64) NOT NULL,
    version integer NOT NULL,
    data bytea NOT NULL,
    metadata bytea NOT NULL,
    routing_key varchar(255),
    "timestamp" bigint NOT NULL,
    timestamp_subsec bigint DEFAULT 0 NOT NULL,
    tenant varchar(255) DEFAULT '' NOT NULL
);
CREATE INDEX idx_event_routing_key_type ON event (routing_key, aggregator_type);
CREATE INDEX idx_event_type_cursor
    ON event (aggregator_type, "timestamp", timestamp_subsec, version, id);
CREATE INDEX idx_event_type_id_tenant_cursor
    ON event (aggregator_type, aggregator_id, tenant, "timestamp", timestamp_subsec, version, id);
CREATE UNIQUE INDEX idx_event_type_id_tenant_version
    ON event (aggregator_type, aggregator_id, tenant, version);
CREATE INDEX idx_event_type_routing_cursor
    ON event (aggregator_type, routing_key, "timestamp", timestamp_subsec, version, id);
CREATE INDEX idx_event_type_tenant_cursor
    ON event (aggregator_type, tenant, "timestamp", timestamp_subsec, version, id);
