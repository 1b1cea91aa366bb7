-- For MySQL, MariaDB and PostgreSQL.
CREATE TABLE accounts (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    balance BIGINT NOT NULL CHECK (balance >= 0),
    version BIGINT NOT NULL
);

CREATE TABLE transfers (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    payer VARCHAR(64) NOT NULL,
    payee VARCHAR(64) NOT NULL,
    amount BIGINT NOT NULL
);

INSERT INTO accounts (id, balance, version) VALUES ('ann', 1000, 1), ('bob', 500, 1), ('eve', 0, 1);
