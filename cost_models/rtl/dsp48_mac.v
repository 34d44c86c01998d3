// Multiply-accumulate in one DSP slice, DSP48E2 (E2=1: operands of 27 and 18 bits) or DSP48E1 (25 and 18):
// sum <= (first ? 0 : sum) + a * b in A <= 48 bits. All registers but one are the slice's. Latency 3.
module dsp48_mac #(
    parameter WA = 8, WB = 8, SA = 1, SB = 1, A = 32, E2 = 1
) (
    input  clk, enable, first,
    input  [WA-1:0] a,
    input  [WB-1:0] b,
    output [A-1:0] sum
);
    localparam SWAP = WB + !SB > 18;
    wire [29:0] wide_a, port_a;
    wire [29:0] wide_b;
    wire [17:0] port_b;
    wire [47:0] p;
    reg first_1;
    extend #(.W(WA), .S(SA), .WIDER(30)) extended_a (.x(a), .y(wide_a));
    extend #(.W(WB), .S(SB), .WIDER(30)) extended_b (.x(b), .y(wide_b));
    assign port_a = SWAP ? wide_b : wide_a;
    assign port_b = SWAP ? wide_a[17:0] : wide_b[17:0];
    assign sum = p[A-1:0];
    always @(posedge clk) if (enable) first_1 <= first;
    // X and Y: the product; Z: P, or 0 where a sum starts. Registered once inside the slice.
    wire [6:0] opmode = {1'b0, !first_1, 1'b0, 4'b0101};
    generate
        if (E2) begin : e2
            DSP48E2 #(
                .AREG(1), .ACASCREG(1), .BREG(1), .BCASCREG(1), .MREG(1), .PREG(1), .OPMODEREG(1),
                .ADREG(0), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0), .CREG(0), .DREG(0), .INMODEREG(0)
            ) slice (
                .CLK(clk), .A(port_a), .B(port_b), .P(p), .OPMODE({2'b00, opmode}),
                .CEA1(1'b0), .CEA2(enable), .CEB1(1'b0), .CEB2(enable), .CEM(enable), .CEP(enable), .CECTRL(enable),
                .ALUMODE(4'b0), .CARRYIN(1'b0), .CARRYINSEL(3'b0), .INMODE(5'b0), .C(48'b0), .D(27'b0),
                .CEAD(1'b0), .CEALUMODE(1'b0), .CEC(1'b0), .CECARRYIN(1'b0), .CED(1'b0), .CEINMODE(1'b0),
                .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTCTRL(1'b0),
                .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0)
            );
        end else begin : e1
            DSP48E1 #(
                .AREG(1), .ACASCREG(1), .BREG(1), .BCASCREG(1), .MREG(1), .PREG(1), .OPMODEREG(1),
                .ADREG(0), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0), .CREG(0), .DREG(0), .INMODEREG(0)
            ) slice (
                .CLK(clk), .A(port_a), .B(port_b), .P(p), .OPMODE(opmode),
                .CEA1(1'b0), .CEA2(enable), .CEB1(1'b0), .CEB2(enable), .CEM(enable), .CEP(enable), .CECTRL(enable),
                .ALUMODE(4'b0), .CARRYIN(1'b0), .CARRYINSEL(3'b0), .INMODE(5'b0), .C(48'b0), .D(25'b0),
                .CEAD(1'b0), .CEALUMODE(1'b0), .CEC(1'b0), .CECARRYIN(1'b0), .CED(1'b0), .CEINMODE(1'b0),
                .RSTA(1'b0), .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTCTRL(1'b0),
                .RSTD(1'b0), .RSTINMODE(1'b0), .RSTM(1'b0), .RSTP(1'b0)
            );
        end
    endgenerate
endmodule
