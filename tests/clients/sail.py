"""Runs Spark SQL with Sail, whose Iceberg support is its own, in reading and in writing.

    sail.py STATEMENT…      the last one's rows as JSON, one a line

Needs: pysail==0.7.2, pyspark-client==4.0.0.
"""

import atexit
import functools
import json
import logging
import sys


@functools.cache
def session():
    """The session of a server in this process, which lasts as long."""
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer("127.0.0.1", 0)
    atexit.register(server.stop)
    server.start(background=True)
    host, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    return spark


def main():
    from read_iceberg import rows_of

    if len(sys.argv) < 2:
        sys.exit(__doc__)
    logging.disable()
    spark = session()
    for statement in sys.argv[1:]:
        rows = spark.sql(statement).toArrow()
    for row in rows_of(rows):
        print(json.dumps(row, allow_nan=False))


if __name__ == "__main__":
    main()
