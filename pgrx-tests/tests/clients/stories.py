"""What a Python program does with pg_tenancy through psycopg 3. Each function is a story; clients.rs names the one to tell.

The connection comes from libpq's own variables (PGHOST, PGPORT, PGUSER, PGDATABASE).
"""

import sys

import psycopg
from psycopg import errors

TENANTS = ("red", "blue")


def connect(**options):
    return psycopg.connect(autocommit=True, **options)


def enter(connection, tenant):
    # SET LOCAL takes no parameter; set_config is its bindable form.
    connection.execute("SELECT set_config('app.current_tenant_id', %s, true)", [tenant])


def items(cursor):
    return [row[0] for row in cursor.fetchall()]


def refused(error, work):
    try:
        work()
    except error as refusal:
        return refusal
    raise AssertionError(f"{error.__name__} was to come")


def read_items(connection):
    return items(connection.execute("SELECT item FROM orders"))


def transactions():
    """Each transaction is one tenant's, and nothing is left between them."""
    with connect() as connection:
        for tenant in TENANTS * 3:
            with connection.transaction():
                enter(connection, tenant)
                assert read_items(connection) == [tenant]
            refusal = refused(errors.ObjectNotInPrerequisiteState, lambda: read_items(connection))
            assert "set_tenant" in refusal.diag.message_hint, refusal.diag.message_hint


def nested():
    """A block that fails gives its savepoint back, and the tenant stays."""
    with connect() as connection, connection.transaction():
        enter(connection, "red")

        def failing():
            with connection.transaction():
                connection.execute("INSERT INTO orders (item) VALUES ('lost')")
                connection.execute("SELECT 1 / 0")

        refused(errors.DivisionByZero, failing)
        assert read_items(connection) == ["red"]

        def forging():
            with connection.transaction():
                connection.execute("INSERT INTO orders (tenant_id, item) VALUES (gen_random_uuid(), 'forged')")

        refused(errors.InsufficientPrivilege, forging)
        refused(errors.InsufficientPrivilege, lambda: enter(connection, "blue"))


def prepared():
    """A statement prepared under one tenant gives the next one its own rows, with a generic plan too."""
    with connect(prepare_threshold=0) as connection:
        for mode in ("auto", "force_generic_plan", "force_custom_plan"):
            connection.execute(f"SET plan_cache_mode = {mode}")
            for tenant in TENANTS * 8:
                with connection.transaction():
                    enter(connection, tenant)
                    assert read_items(connection) == [tenant], (mode, tenant)
            refused(errors.ObjectNotInPrerequisiteState, lambda: read_items(connection))
        held = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT item FROM orders'")
        assert held.fetchone() == (1,)


def pipeline():
    """Transactions of several tenants go out together and each gets its own rows."""
    with connect() as connection:
        with connection.pipeline():
            answers = []
            for tenant in TENANTS * 4:
                connection.execute("BEGIN")
                enter(connection, tenant)
                answers.append(connection.execute("SELECT item FROM orders"))
                connection.execute("COMMIT")
        assert [items(answer) for answer in answers] == [[tenant] for tenant in TENANTS * 4]


def pipeline_without_begin():
    """What lies between two Syncs is one transaction, and its tenant ends with it."""
    with connect() as connection:
        with connection.pipeline() as pipeline:
            for tenant in TENANTS:
                enter(connection, tenant)
                answer = connection.execute("SELECT item FROM orders")
                pipeline.sync()
                assert items(answer) == [tenant]
        refused(errors.ObjectNotInPrerequisiteState, lambda: read_items(connection))


def pipeline_that_fails():
    """After an error the rest of the pipeline is skipped; it never runs as somebody else."""
    with connect() as connection:

        def failing():
            with connection.pipeline():
                connection.execute("BEGIN")
                enter(connection, "red")
                connection.execute("SELECT 1 / 0")
                connection.execute("COMMIT")
                connection.execute("INSERT INTO orders (item) VALUES ('whose?')")

        refused(errors.DivisionByZero, failing)
        connection.rollback()
        with connection.transaction():
            enter(connection, "blue")
            assert read_items(connection) == ["blue"]

        def second_tenant():
            with connection.pipeline():
                connection.execute("BEGIN")
                enter(connection, "red")
                enter(connection, "blue")
                connection.execute("INSERT INTO orders (item) VALUES ('whose?')")
                connection.execute("COMMIT")

        refused(errors.InsufficientPrivilege, second_tenant)
        connection.rollback()
        with connection.transaction():
            enter(connection, "red")
            assert read_items(connection) == ["red"]


def copying():
    """COPY gives a tenant's own rows only; COPY FROM is PostgreSQL's to refuse under row security."""
    with connect() as connection:
        for tenant in TENANTS:
            with connection.transaction():
                enter(connection, tenant)
                with connection.cursor().copy("COPY orders (item) TO STDOUT") as copy:
                    assert [row for row in copy.rows()] == [(tenant,)]

        def read_without():
            with connection.cursor().copy("COPY orders (item) TO STDOUT") as copy:
                list(copy.rows())

        refused(errors.ObjectNotInPrerequisiteState, read_without)

        def load():
            with connection.transaction():
                enter(connection, "red")
                with connection.cursor().copy("COPY orders (item) FROM STDIN") as copy:
                    copy.write_row(["loaded"])

        refused(errors.FeatureNotSupported, load)


def cursors():
    """A server-side cursor reads its own tenant's rows, in steps too."""
    with connect() as connection:
        for tenant in TENANTS:
            with connection.transaction():
                enter(connection, tenant)
                with connection.cursor(name="walk", scrollable=True) as cursor:
                    cursor.execute("SELECT item FROM orders, generate_series(1, 100)")
                    seen = [row[0] for _ in range(10) for row in cursor.fetchmany(10)]
                assert seen == [tenant] * 100


def many_rows():
    """executemany writes under the tenant that is set, whatever the driver makes of it on the wire."""
    with connect() as connection:
        with connection.transaction():
            enter(connection, "red")
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO orders (item) VALUES (%s)", [[f"item {n}"] for n in range(50)])
        with connection.transaction():
            enter(connection, "blue")
            assert read_items(connection) == ["blue"]
        with connection.transaction():
            enter(connection, "red")
            assert len(read_items(connection)) == 51


if __name__ == "__main__":
    globals()[sys.argv[1]]()
