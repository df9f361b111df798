-- Stage work: the demo fails when the books are not what the story says.
DO $$
BEGIN
    ASSERT (SELECT count(*) FROM pgbench_accounts) = 1000000, 'pgbench has made its accounts';
    ASSERT (SELECT count(DISTINCT bid) FROM pgbench_history) = 10, 'each branch has payments';
    ASSERT NOT EXISTS (SELECT FROM pgbench_history h JOIN pgbench_accounts a USING (aid) WHERE a.bid <> h.bid),
           'no payment touches another branch''s account';
    ASSERT NOT EXISTS (SELECT FROM pgbench_branches b
                        WHERE bbalance <> (SELECT sum(delta) FROM pgbench_history h WHERE h.bid = b.bid)
                           OR bbalance <> (SELECT sum(tbalance) FROM pgbench_tellers t WHERE t.bid = b.bid)
                           OR bbalance <> (SELECT sum(abalance) FROM pgbench_accounts a WHERE a.bid = b.bid)),
           'the sums agree in each branch';
END $$;
