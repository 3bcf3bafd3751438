"""The sales database that the analyst ships with: two years of an invented coffee trader.

`python agents/sales_data.py` writes `sales.db` anew. It is the same each time, for the numbers
come from a seed.
"""

import random
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("sales.db")

TABLES = """
create table customers (customer_id integer primary key, name text, region text, segment text);
create table products (product_id integer primary key, name text, category text, price real);
create table orders (
    order_id integer primary key,
    ordered_on text,
    customer_id integer references customers,
    product_id integer references products,
    quantity integer,
    revenue real
);
"""
REGIONS = ["North", "South", "East", "West"]
SEGMENTS = ["Retail", "Wholesale", "Online"]
PRODUCTS = [
    ("Espresso Beans", "Coffee", 14.5),
    ("Filter Beans", "Coffee", 12.0),
    ("Decaf Beans", "Coffee", 13.0),
    ("Cold Brew", "Coffee", 4.5),
    ("Green Tea", "Tea", 8.0),
    ("Black Tea", "Tea", 7.0),
    ("Oolong", "Tea", 11.0),
    ("Hand Mill", "Equipment", 49.0),
    ("Kettle", "Equipment", 65.0),
    ("Paper Filters", "Equipment", 3.5),
]
FIRST_DAY, DAYS, ORDERS = date(2024, 1, 1), 731, 1500


def build(path: Path) -> None:
    chance = random.Random(2024)
    customers = [
        (n, f"Customer {n:02}", chance.choice(REGIONS), chance.choice(SEGMENTS))
        for n in range(1, 41)
    ]
    products = [(n, *product) for n, product in enumerate(PRODUCTS, 1)]
    orders: list[tuple[int, str, int, int, int, float]] = []
    for n in range(1, ORDERS + 1):
        # The square root leans towards later days: the trade grows.
        day = FIRST_DAY + timedelta(days=int(DAYS * chance.random() ** 0.5))
        product = chance.randrange(len(products))
        quantity = chance.randint(1, 20)
        revenue = round(quantity * PRODUCTS[product][2], 2)
        orders.append((n, day.isoformat(), chance.randint(1, 40), product + 1, quantity, revenue))
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.executescript(TABLES)
        conn.executemany("insert into customers values (?, ?, ?, ?)", customers)
        conn.executemany("insert into products values (?, ?, ?, ?)", products)
        conn.executemany("insert into orders values (?, ?, ?, ?, ?, ?)", orders)


if __name__ == "__main__":
    build(FILE)
